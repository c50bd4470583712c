"""What the kit knows of the machine it runs on: processors, memory, progress of long work, provenance, the hub."""
