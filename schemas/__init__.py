"""What the packages agree on: recipes, tables, reasons, identities, buckets and the shard format."""
