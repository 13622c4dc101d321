"""What several tests need and no user does: the real Collector, a faulty network, certificates."""
