"""Long work in stages of shards: resumable, in this process, in several, or on Ray."""
