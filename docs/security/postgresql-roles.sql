-- Roles and database: once, as a superuser, before the first `interlock db upgrade`.
-- Afterwards set passwords (\password interlock_worker …) or client certificates, and demand TLS in pg_hba.conf.

-- Owns the tables: runs `interlock db upgrade` and postgresql-grants.sql, and is used for nothing else.
CREATE ROLE interlock_owner LOGIN;

-- Workers with their engine processes, and clients of operators that have a database of their own.
CREATE ROLE interlock_worker LOGIN;

-- Programs that enqueue runs and look at them.
CREATE ROLE interlock_producer LOGIN;

-- People who look, and `interlock verify`. What their role may not write, their transactions may not either.
CREATE ROLE interlock_auditor LOGIN;
ALTER ROLE interlock_auditor SET default_transaction_read_only = on;

CREATE DATABASE interlock OWNER interlock_owner;
REVOKE ALL ON DATABASE interlock FROM PUBLIC;
GRANT CONNECT ON DATABASE interlock TO interlock_worker, interlock_producer, interlock_auditor;
