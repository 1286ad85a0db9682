-- How many records of a key are not at their end.
-- KEYS: 1 set of them
-- ARGV: 1 what stands before an id in a record's key
-- Returns the count.
return count_active(KEYS[1], ARGV[1])
