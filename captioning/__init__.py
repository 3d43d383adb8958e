"""Pictures to words: captions, the mix of them, and the nouns they hold."""
