"""A server that has something of everything that a catalogue can hold, in two databases."""

from __future__ import annotations

from dr_pipelines.embedded.postgres import EmbeddedPostgres

SECRET = "an-open-secret"

_CLUSTER = f"""
CREATE ROLE clerk LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 3;
CREATE ROLE office ROLE clerk;
ALTER ROLE clerk SET statement_timeout = '9s';
ALTER ROLE clerk SET shop.token = '{SECRET}';
CREATE DATABASE second OWNER office;
"""

_SHOP = f"""
CREATE SCHEMA shop AUTHORIZATION office;
CREATE TYPE shop.state AS ENUM ('new', 'paid');
CREATE DOMAIN shop.amount AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE TABLE shop.customers (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text NOT NULL, born date,
    note text COLLATE "C", upper_name text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE shop.orders (id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES shop.customers, state shop.state
    NOT NULL DEFAULT 'new', total shop.amount, body jsonb, picture bytea, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.lines (day date NOT NULL, n int) PARTITION BY RANGE (day);
CREATE TABLE shop.lines_2026 PARTITION OF shop.lines FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.lines_rest PARTITION OF shop.lines DEFAULT;
CREATE UNLOGGED TABLE shop.cache (k text);
CREATE TABLE shop."odd ""name%" ("a column" int, "dr row" text);
CREATE SEQUENCE shop.falling INCREMENT -1 MINVALUE -1000 START -1;
CREATE INDEX orders_at ON shop.orders (at);
CREATE INDEX orders_lower ON shop.customers (lower(name)) WHERE id > 10;
CREATE STATISTICS shop.both ON customer, state FROM shop.orders;
CREATE VIEW shop.open AS SELECT * FROM shop.orders WHERE state = 'new';
CREATE MATERIALIZED VIEW shop.sums AS SELECT customer, sum(total::numeric) FROM shop.orders GROUP BY 1;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at = now(); RETURN NEW; END';
CREATE AGGREGATE shop.total (numeric) (sfunc = numeric_add, stype = numeric);
CREATE TRIGGER touched BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE RULE no_more AS ON DELETE TO shop.lines_rest DO INSTEAD NOTHING;
CREATE FUNCTION shop.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION shop.seen();
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.orders FOR SELECT TO clerk USING (customer = 1);
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT, INSERT ON shop.orders TO clerk;
GRANT UPDATE (note) ON shop.customers TO clerk;
REVOKE EXECUTE ON FUNCTION shop.touch() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO office;
COMMENT ON TABLE shop.orders IS 'what was bought';
CREATE PUBLICATION few FOR TABLE shop.orders, shop.customers WITH (publish = 'insert');
CREATE PUBLICATION all_of_it FOR ALL TABLES;
CREATE SUBSCRIPTION elsewhere CONNECTION 'host=127.0.0.1 port=1 password={SECRET}' PUBLICATION theirs
    WITH (connect = false);
ALTER SUBSCRIPTION elsewhere ENABLE;
CREATE EXTENSION vector;
CREATE FOREIGN DATA WRAPPER wrapper;
CREATE SERVER far FOREIGN DATA WRAPPER wrapper OPTIONS (host 'far');
CREATE USER MAPPING FOR clerk SERVER far OPTIONS (password '{SECRET}');
INSERT INTO shop.customers (name, born) SELECT 'customer ' || g, date '2000-01-01' + g FROM generate_series(1, 50) g;
INSERT INTO shop.orders (customer, total, body, picture, at)
    SELECT 1 + g % 50, g, jsonb_build_object('n', g), decode(md5(g::text), 'hex'),
           timestamptz '2026-01-01 00:00Z' + g * interval '1 min' FROM generate_series(1, 500) g;
INSERT INTO shop.lines SELECT date '2026-06-01' + g, g FROM generate_series(1, 300) g;
INSERT INTO shop.lines VALUES ('infinity', 0);
INSERT INTO shop."odd ""name%" VALUES (1, 'a'), (NULL, NULL);
INSERT INTO shop.cache VALUES ('gone after a restore');
SELECT nextval('shop.falling');
SELECT lo_from_bytea(0, '\\x0102');
"""

CHANGES = """
ALTER ROLE clerk CONNECTION LIMIT 4;
ALTER ROLE clerk PASSWORD NULL;
REVOKE office FROM clerk;
ALTER ROLE clerk RESET statement_timeout;
DROP POLICY own ON shop.orders;
ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY;
ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey;
ALTER TABLE shop.orders DISABLE TRIGGER touched;
REVOKE INSERT ON shop.orders FROM clerk;
DROP INDEX shop.orders_at;
CREATE OR REPLACE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE OR REPLACE VIEW shop.open AS SELECT * FROM shop.orders WHERE state = 'paid';
ALTER TYPE shop.state ADD VALUE 'sent';
ALTER SEQUENCE shop.falling CACHE 5;
ALTER PUBLICATION few DROP TABLE shop.customers;
ALTER SUBSCRIPTION elsewhere SET (slot_name = other);
DROP EXTENSION vector;
ALTER TABLE shop.lines DETACH PARTITION shop.lines_rest;
ALTER TABLE shop.customers ALTER COLUMN note TYPE varchar(10);
COMMENT ON TABLE shop.orders IS NULL;
CREATE SCHEMA new;
SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata;
"""

CHANGED = (
    "role clerk is changed", "role password clerk is changed", "membership clerk in office",
    "setting statement_timeout", "policy own on shop.orders is missing", "relation shop.orders is changed",
    "constraint orders_customer_fkey", "trigger touched on shop.orders is changed",
    "grant relation shop.orders is changed", "index shop.orders_at is", "function shop.touch() is changed",
    "view shop.open is changed", "type shop.state is changed", "sequence shop.falling is changed",
    "published table shop.customers in few", "subscription elsewhere is changed", "extension vector is",
    "relation shop.lines_rest is changed", "column shop.customers.note is changed",
    "catalogue pg_description is changed", "schema new is", "large object of postgres is",
)  # fmt: skip
"""Each of the changes as a check names it, seen from either side but for missing and extra."""


def make_rich(server: EmbeddedPostgres) -> None:
    for text in (line for line in _CLUSTER.split(";\n") if line.strip()):
        server.psql(text)
    server.psql(_SHOP)
    server.psql("CREATE TABLE only_here (id int PRIMARY KEY); INSERT INTO only_here VALUES (1), (2)", "second")
