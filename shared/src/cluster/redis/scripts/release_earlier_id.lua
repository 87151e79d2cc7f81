-- KEYS: nodes
-- ARGV: node
-- Lists an earlier identity of a node as given up: its lease is 0, and others declare it dead soon.
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
