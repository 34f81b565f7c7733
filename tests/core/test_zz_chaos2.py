from __future__ import annotations
import random, os, copy, traceback
from uuid import uuid4
import pytest
from interlock.core import WorkflowController
from interlock.core.attempts import AttemptRef, Attempts
from interlock.core.bodies import Bodies
from interlock.core.errors import InterlockError, AlreadyDecided, CommandRefused, TransitionNotAllowed
from interlock.core.outcomes import Failure
from interlock.core.settings import Settings
from tests.core.checker import check
from tests.core.rows import forget_everything, step
from tests.core.test_parallelism_model import World, ENDED, _timers

def plan(r):
    found = []
    for i in range(r.randint(1, 6)):
        earlier = [m["key"] for m in found]
        after = r.sample(earlier, min(len(earlier), r.randint(0, 3)))
        o = {"trigger": r.choice(["all_completed", "all_settled", *(["any_failed"] if after else [])]),
             "on_failure": r.choice(["continue", "continue", "pause", "fail"]),
             "on_external_revoke": r.choice(["cancel", "pause", "redispatch"]),
             "when": r.choice([None, None, None, "input.yes", "input.no", "abs(input.text) > `0`"]),
             "retry": {"max_attempts": r.randint(1, 2), "initial_delay_s": r.choice([0.0, 60.0]), "jitter": 0.0, "max_lost": r.randint(1,3)}}
        kind = r.choice(["task", "task", "task", "asking", "gate", "map", "asking map"])
        if kind in ("gate", "asking", "asking map"):
            o["approval"] = {"on_reject": r.choice(["continue", "continue", "cancel"])}
        if kind in ("map", "asking map"):
            o["map"] = {"over": f"input.lists[{r.randint(0,4)}]", "max_parallel": r.choice([None, 1, 2])}
        p = step(f"s{i}", " ".join(after), **o)
        found.append({**p, "task": None} if kind == "gate" else p)
    return {"steps": found, "task_description": "x", "max_parallel": r.choice([None, None, 1, 2, 3])}

class W(World):
    def __init__(self, *a):
        super().__init__(*a)
        self.b = Bodies(self.database, Settings())
        self.dead = []
        self.seen = []
    def enabled(self, *, gently=False):
        f = super().enabled(gently=gently)
        if gently: return f
        rows = {k: self.rows.step(self.run_id, k) for k in self.rows.states(self.run_id)}
        live = [k for k, x in rows.items() if x.status in ("pending", "running") and x.task_id]
        st = self.status
        if st not in ("executing", "paused"): live = []
        f += [("revoke", (k, how)) for k in live for how in ("discard", "term", "soft")]
        f += [("unknown", k) for k in live]
        for b in self.bodies:
            f += [("ask", b), ("lost", b), ("ended", b), ("cause", (b, "timeout")), ("cause", (b, "shutdown")), ("cause", (b, "celery_retry")), ("cause", (b, "unusable"))]
        f += [("late", b) for b in self.dead]
        f += [("dup", ref) for ref in self.seen[-5:]]
        if st == "paused":
            f += [("pstep2", k) for k, x in rows.items() if x.status == "paused"]
            f += [("resume_step", k) for k, x in rows.items() if x.paused_by is not None and x.status == "paused"]
        if st == "executing":
            f += [("drain", None)]
            f += [("pdrain", k) for k, x in rows.items() if x.status == "running" and x.task_id]
        if self.worker.queue: f += [("drop", None)]
        return f
    def _claim(self, _):
        d = self.worker.queue[0]
        ref, claim = self.worker.offer(d.key)
        self.seen.append(ref)
        if claim.granted: self.bodies.append(ref)
    def _drop(self, _): self.worker.queue.pop(0)
    def _dup(self, ref):
        new = AttemptRef(ref.run_id, ref.step_id, ref.task_id, uuid4().hex)
        held = [b for b in self.bodies if b.task_id == ref.task_id]
        granted = self.worker.attempts.claim(new, "worker@2").granted
        if granted:
            assert not held and not [b for b in self.dead if b.task_id == ref.task_id], "second body of one attempt"
            self.bodies.append(new)
    def _revoke(self, w):
        k, how = w
        row = self.rows.step(self.run_id, k)
        ref = AttemptRef(self.run_id, str(row.id), row.task_id)
        if how == "discard":
            self.worker.attempts.revoked(ref, terminated=False, expired=random.random() < .3)
        elif how == "term":
            for b in [b for b in self.bodies if b.task_id == row.task_id]: self.bodies.remove(b); self.dead.append(b)
            self.worker.attempts.revoked(ref, terminated=True, expired=False)
        else:
            self.worker.attempts.revoked(ref, terminated=True, expired=False, softly=True)
    def _unknown(self, k):
        row = self.rows.step(self.run_id, k)
        ref = AttemptRef(self.run_id, str(row.id), row.task_id)
        self.worker.attempts.dispatch_refused(ref)
        if random.random() < .5: self.worker.attempts.fail_unstarted(ref, "unknown task")
    def _ask(self, b):
        self.bodies.remove(b)
        if not self.b.ask(b, {"name": "q", "on_reject": random.choice(["continue", "cancel"])}):
            self.worker.attempts.fail(b, Failure("interrupted", "asked"))
    def _lost(self, b):
        self.bodies.remove(b); self.dead.append(b)
        key = next(k for k in self.rows.states(self.run_id) if str(self.rows.step(self.run_id, k).id) == str(b.step_id))
        row = self.rows.step(self.run_id, key)
        if row.claim_token == b.token: self.rows.make_due(self.run_id, key, "lease_until")
        elif row.drain_token == b.token: self.rows.make_due(self.run_id, key, "drain_until")
        self.sweeper.sweep()
    def _ended(self, b):
        self.bodies.remove(b)
        ref = AttemptRef(b.run_id, b.step_id, b.task_id)
        c = random.choice(["worker_lost", "timeout", "shutdown", "interrupted"])
        self.worker.attempts.fail(ref, Failure(c, "ended")); self.worker.attempts.fail(ref, Failure(c, "ended"))
        self.dead.append(b)
    def _cause(self, w):
        b, c = w
        self.bodies.remove(b)
        f = Failure(c, c, delay_s=random.choice([0.0, 30.0]))
        self.worker.attempts.fail(b, f); self.worker.attempts.fail(b, f)
    def _late(self, b):
        self.dead.remove(b)
        if random.random() < .5: self.worker.attempts.complete(b, 2); self.worker.attempts.complete(b, 2)
        else: self.worker.attempts.fail(b, Failure("error", "late"))
    def _pstep2(self, k):
        try: self.controller.pause_step(self.run_id, k, mode=random.choice(["interrupt", "drain"]))
        except CommandRefused: pass
    def _drain(self, _): self.controller.pause_workflow(self.run_id, mode="drain")
    def _pdrain(self, k): self.controller.pause_step(self.run_id, k, mode="drain")
    def _decide(self, verb, key):
        try: getattr(self.controller, f"{verb}_step")(self.run_id, key)
        except AlreadyDecided: assert self.status in ("paused", "executing")
    def end(self):
        for _ in range(80):
            if self.status in ENDED: return
            # everything time-driven may pass
            for k in self.rows.states(self.run_id):
                row = self.rows.step(self.run_id, k)
                if self.status == "executing" and row.claim_token and not [b for b in self.bodies if b.token == row.claim_token]:
                    self.rows.make_due(self.run_id, k, "lease_until"); self.sweeper.sweep()
                row = self.rows.step(self.run_id, k)
                if self.status == "executing" and row.status in ("pending", "running") and row.dispatch_check_at is not None and not row.claim_token:
                    self.rows.make_due(self.run_id, k, "dispatch_check_at"); self.sweeper.sweep()
            for op in self.enabled(gently=True):
                if op in self.enabled(gently=True): self.do(op)
        raise AssertionError("does not end: %s" % (self.controller.get_workflow_status(self.run_id),))

@pytest.mark.parametrize("core_url", [os.environ.get("CHAOS_DB", "sqlite")], indirect=True)
def test_chaos(unchecked_database):
    start = int(os.environ.get("CHAOS_SEED", "0")); n = int(os.environ.get("CHAOS_N", "150"))
    bad = {}
    for seed in range(start, start + n):
        random.seed(seed); r = random.Random(seed)
        forget_everything(unchecked_database)
        log = []
        try:
            with unchecked_database.session() as s:
                p = plan(r)
                w = W(unchecked_database, WorkflowController(s, settings=Settings()), p)
                for _ in range(45):
                    en = w.enabled()
                    if not en: break
                    names = sorted({e[0] for e in en}); nm = r.choice(names)
                    op = r.choice([e for e in en if e[0] == nm])
                    log.append(op); w.do(op)
                log.append("END"); w.end()
                sw = w.sweeper.sweep()
                if sw: raise AssertionError("still sweeping: %s" % sw)
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt): raise
            sig = type(e).__name__ + ":" + str(e)[:90].replace(str(getattr(w, 'run_id', '')), "")
            import re; sig = re.sub(r"[0-9a-f-]{36}", "ID", sig)
            tb = traceback.extract_tb(e.__traceback__)
            sig += " @" + " < ".join(f"{t.name}:{t.lineno}" for t in reversed(tb[-5:]))
            bad.setdefault(sig, []).append((seed, p, log, str(e)))
    for sig, items in bad.items():
        print("=====", len(items), sig, [i[0] for i in items][:8])
        seed, p, log, msg = min(items, key=lambda i: len(i[2]))
        print(" seed", seed); print(" ", p); print("  LOG", [(o if isinstance(o, str) else (o[0], getattr(o[1], 'task_id', o[1]) if not isinstance(o[1], tuple) else tuple(getattr(x,'task_id',x) for x in o[1]))) for o in log]); print("  MSG", msg[:600])
    assert not bad
