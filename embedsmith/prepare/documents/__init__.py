"""A folder of documents, of many kinds, made into passages and into pairs of a query and what answers it."""
