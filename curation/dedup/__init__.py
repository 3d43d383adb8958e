"""Groups of the same picture: the jobs `fingerprint` and `dedup`. Other rooms also use pHashes of `fingerprint`."""
