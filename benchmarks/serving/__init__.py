"""What serving an ensemble costs next to serving one adapter."""
