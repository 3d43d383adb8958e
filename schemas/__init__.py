"""The contracts of all packages: recipes, tables, reasons, identities, buckets and the shard format."""
