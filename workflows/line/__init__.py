"""What workflows.pipeline is made of: its options, the steps that it shares with a study, and the study."""
