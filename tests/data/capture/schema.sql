-- The tables of tests/data/capture: what the snapshot reads.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');

CREATE TABLE customers (
    id bigint PRIMARY KEY,
    name varchar(40) NOT NULL DEFAULT 'nobody',
    mood mood DEFAULT 'ok',
    tags text[],
    scores int[] NOT NULL DEFAULT '{}',
    born date,
    seen timestamptz,
    made timestamp(3) DEFAULT '2024-01-02 03:04:05.678',
    active boolean NOT NULL DEFAULT true,
    profile jsonb,
    long text
);
CREATE TABLE order_lines (
    order_id int,
    line smallint,
    sku uuid NOT NULL,
    price numeric(12, 2) DEFAULT 9.99,
    weight numeric,
    ratio numeric(5),
    factor double precision,
    part real,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE notes (
    at time,
    body text,
    raw bytea,
    flags bit(8),
    span interval,
    amount money,
    address inet
);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE TABLE articles (
    id int PRIMARY KEY,
    title text,
    body text,
    size int NOT NULL DEFAULT 7
);
ALTER TABLE articles REPLICA IDENTITY FULL;
CREATE TABLE codes (
    code text NOT NULL,
    region char(3) NOT NULL,
    label text
);
CREATE UNIQUE INDEX codes_code_region ON codes (region, code);
ALTER TABLE codes REPLICA IDENTITY USING INDEX codes_code_region;

INSERT INTO customers (id, name, mood, tags, born, seen, profile, long) VALUES
    (1, 'Anna', 'happy', '{a,"b c",NULL}', '1990-05-17', '2024-03-01 12:00:00.123456+02', '{"k": [1, 2.50]}', 'short'),
    (2, 'Bob "B"', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO customers (id) VALUES (3);
INSERT INTO order_lines VALUES
    (1, 1, '7f1e7c3a-0000-4000-8000-000000000001', 12.50, 1.2345, 42, 0.1, 1.5),
    (1, 2, '7f1e7c3a-0000-4000-8000-000000000002', NULL, NULL, NULL, NULL, NULL),
    (2, 1, '7f1e7c3a-0000-4000-8000-000000000003', -0.01, 'NaN', 0, 'NaN', '-Infinity');
INSERT INTO notes VALUES
    ('12:34:56.789', E'tab\tand "quote" and \\ and \n', '\xdeadbeef', B'10100101', '1 day 02:03:04', 12.34, '10.0.0.1/8'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO articles VALUES (1, 'first', 'text', 1);
INSERT INTO codes VALUES ('x', 'eu', 'one'), ('y', 'us', NULL);
