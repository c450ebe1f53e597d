-- What the store keeps, in the schema pgregent_store. Run as a whole, in one transaction, each time a store is opened.
--
-- Everything that changes keys is one function call, hence one statement in a transaction of its own: a client that is
-- frozen or cut off never holds the lock. Functions see what was committed before each of their statements, so they
-- must run at READ COMMITTED, which the client sets.
SELECT pg_advisory_xact_lock(4101, 1);
CREATE SCHEMA IF NOT EXISTS pgregent_store;
SET LOCAL search_path = pgregent_store;
SET LOCAL client_min_messages = warning;
CREATE SEQUENCE IF NOT EXISTS version; -- never goes back, also not by a rollback or a crash
CREATE TABLE IF NOT EXISTS session (
	id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	ttl interval NOT NULL,
	ends timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS item (
	key bytea PRIMARY KEY, -- prefix and key: bytes have no encoding and no collation
	value bytea NOT NULL,
	version bigint NOT NULL,
	session bigint REFERENCES session ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS item_session ON item (session);

-- All changes of keys, one after the other.
CREATE OR REPLACE FUNCTION serialize() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(4101, 2) $$;

-- Ends the sessions whose time has come. Only this does; a renewal under way either comes first or finds nothing.
CREATE OR REPLACE FUNCTION expire() RETURNS void LANGUAGE plpgsql SET search_path = pgregent_store, public AS $$
BEGIN
	IF EXISTS (SELECT FROM session WHERE ends <= clock_timestamp()) THEN
		PERFORM serialize();
		DELETE FROM session WHERE ends <= clock_timestamp();
	END IF;
END $$;

CREATE OR REPLACE FUNCTION end_session(which bigint) RETURNS void LANGUAGE plpgsql SET search_path = pgregent_store, public AS $$
BEGIN
	PERFORM serialize();
	DELETE FROM session WHERE id = which;
END $$;

-- One statement reads all keys from low (included) to high (excluded): one consistent cut.
CREATE OR REPLACE FUNCTION read_items(low bytea, high bytea) RETURNS SETOF item LANGUAGE plpgsql SET search_path = pgregent_store, public AS $$
BEGIN
	PERFORM expire();
	RETURN QUERY SELECT * FROM item WHERE item.key >= low AND item.key < high ORDER BY item.key;
END $$;

-- Returns the new version for each operation, 0 for a delete. An error undoes everything.
CREATE OR REPLACE FUNCTION commit_txn(if_keys bytea[], if_versions bigint[], keys bytea[], new_values bytea[], sessions bigint[], deletes boolean[])
RETURNS bigint[] LANGUAGE plpgsql SET search_path = pgregent_store, public AS $$
DECLARE
	versions bigint[] := '{}';
	at bigint;
BEGIN
	PERFORM serialize();
	PERFORM expire();
	FOR i IN 1 .. cardinality(if_keys) LOOP
		SELECT item.version INTO at FROM item WHERE item.key = if_keys[i];
		IF coalesce(at, 0) <> if_versions[i] THEN
			RAISE EXCEPTION 'condition % asks for version %, it is %', i, if_versions[i], coalesce(at, 0) USING ERRCODE = 'DC001';
		END IF;
	END LOOP;
	FOR i IN 1 .. cardinality(keys) LOOP
		at := 0;
		IF deletes[i] THEN
			DELETE FROM item WHERE item.key = keys[i];
		ELSE
			at := nextval('version');
			INSERT INTO item VALUES (keys[i], new_values[i], at, nullif(sessions[i], 0))
				ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, session = excluded.session;
		END IF;
		versions := versions || at;
	END LOOP;
	RETURN versions;
END $$;

-- Wakes every watch, whatever its keys are: a watch may wake for nothing.
CREATE OR REPLACE FUNCTION wake() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY pgregent_store; RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER wake AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH STATEMENT EXECUTE FUNCTION wake();
