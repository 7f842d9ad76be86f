-- What the stream reads: one statement or transaction per paragraph.
INSERT INTO customers (id, name, tags, scores, born) VALUES (4, 'Dora', '{}', '{1,NULL,3}', '0044-03-15 BC');

INSERT INTO customers (id) VALUES (5);

INSERT INTO customers (id, name, mood, tags, scores, born, seen, made, active, profile, long)
VALUES (6, 'Ünï ☃ 𝄞', 'sad', '{x}', '{7}', 'infinity', '-infinity', NULL, false, 'null', '');

UPDATE customers SET mood = 'sad', tags = '{q}' WHERE id = 1;

UPDATE customers SET mood = NULL WHERE id = 1;

UPDATE customers SET id = 40 WHERE id = 4;

DELETE FROM customers WHERE id = 2;

BEGIN;
INSERT INTO order_lines VALUES (3, 1, '7f1e7c3a-0000-4000-8000-000000000004', 99999999.99, 123456789012345678901234567890.123456789, -7, 1e300, 1e-30);
UPDATE order_lines SET weight = 0, factor = 1, part = 2 WHERE order_id = 3;
UPDATE order_lines SET line = 9 WHERE order_id = 1 AND line = 2;
DELETE FROM order_lines WHERE order_id = 2;
COMMIT;

BEGIN;
INSERT INTO articles VALUES (100, 'rolled back', NULL, 0);
ROLLBACK;

BEGIN;
INSERT INTO articles VALUES (2, 'kept', repeat('é', 3), DEFAULT);
SAVEPOINT s;
INSERT INTO articles VALUES (3, 'lost', NULL, 1);
ROLLBACK TO s;
UPDATE articles SET size = 8 WHERE id = 2;
COMMIT;

INSERT INTO customers (id, name, long) SELECT 7, 'toast', string_agg(md5(i::text), '') FROM generate_series(1, 200) i;

UPDATE customers SET name = 'toast, updated' WHERE id = 7;

UPDATE customers SET id = 70 WHERE id = 7;

DELETE FROM customers WHERE id = 70;

INSERT INTO articles SELECT 4, 'toast', string_agg(md5(i::text), ''), 1 FROM generate_series(1, 200) i;

UPDATE articles SET size = 2 WHERE id = 4;

UPDATE articles SET id = 5 WHERE id = 4;

DELETE FROM articles WHERE id = 5;

INSERT INTO notes (body) VALUES ('no key');

UPDATE notes SET body = 'changed', amount = -5 WHERE body = 'no key';

DELETE FROM notes WHERE body = 'changed';

UPDATE codes SET label = 'two' WHERE code = 'x';

UPDATE codes SET code = 'z' WHERE code = 'x';

DELETE FROM codes WHERE code = 'y';

SELECT pg_logical_emit_message(true, 'app', 'transactional, ü');

BEGIN;
INSERT INTO articles VALUES (6, 'beside a message', NULL, 1);
SELECT pg_logical_emit_message(true, 'app', 'inside');
UPDATE articles SET title = 'after the message' WHERE id = 6;
COMMIT;

SELECT pg_logical_emit_message(false, 'app', 'at once');

ALTER TABLE articles ADD COLUMN extra numeric(6, 3) DEFAULT 1.5;

INSERT INTO articles (id, title) VALUES (7, 'with a new column');

ALTER TABLE articles DROP COLUMN size;

INSERT INTO articles (id, title, extra) VALUES (8, 'with one column less', NULL);

ALTER TYPE mood ADD VALUE 'furious';

UPDATE customers SET mood = 'furious' WHERE id = 1;

TRUNCATE order_lines, codes;

TRUNCATE articles RESTART IDENTITY CASCADE;

INSERT INTO articles (id, title) VALUES (9, 'the last one');
