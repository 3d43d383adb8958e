"""The contracts of all packages: recipes, tables, reasons, identities, buckets and the shard format."""

import sys

from schemas.arrow_alone import ArrowAlone

sys.meta_path.insert(0, ArrowAlone())
