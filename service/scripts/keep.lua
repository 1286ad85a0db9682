-- Keep adapted parameters for a while.
-- KEYS: 1 adaptation, 2 index, 3 books, 4 same, or ''
-- ARGV: 1 info (JSON), 2 parameters, 3 lifetime (ms), 4 budget (bytes), 5 prefix of adaptations, 6 life of the books (s)
-- Returns 1, or 0 when it is larger than the whole budget.
return keep({key = KEYS[1], index = KEYS[2], books = KEYS[3], same = KEYS[4], info = ARGV[1], blob = ARGV[2],
             ttl_ms = tonumber(ARGV[3]), budget = tonumber(ARGV[4]), prefix = ARGV[5], books_ttl_s = ARGV[6]})
