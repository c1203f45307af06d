"""FlowAggregator's command line: views (backup, restore, clone, removal) and dead letters."""
