"""Raw images to tables to shards."""
