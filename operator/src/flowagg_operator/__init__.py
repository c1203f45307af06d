"""FlowAggregator's operator: keeps what a FlowAggregator resource asks for."""
