import os, signal, redis, time
from tests.worker.deployment import *
from tests.worker.conftest import *
from tests.core.conftest import *
def test_x(deployment):
    w=deployment.worker("w",concurrency=1)
    w2=deployment.worker("w2",concurrency=1)
    r=redis.Redis.from_url(deployment.broker.url(0))
    for i in range(8):
        ps=[engine_pid(x) for x in (w,w2)]
        for p in ps: os.kill(p, signal.SIGKILL)
        if i%2: 
            wait_until(lambda: all(p not in psutil.pids() or psutil.Process(p).status()=='zombie' for p in ps),5,'x')
        t=time.time()
        try:
            with deployment.remote_client() as remote:
                remote.list()
            print(i,"ok", time.time()-t)
        except Exception as e:
            print(i,repr(e)[:60])
            print(r.llen('interlock.control'), r.hlen('interlock.control.unacked'), [(c['addr'], c['cmd'], c['age'], c['idle'], c['flags']) for c in r.client_list() if c['cmd']=='brpop'])
        wait_until(lambda: all(engine_pid(x) not in (0,*ps) for x in (w,w2)),5,"both")
        time.sleep(1)
    r.close()
