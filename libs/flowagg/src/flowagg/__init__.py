"""What FlowAggregator's services share."""
