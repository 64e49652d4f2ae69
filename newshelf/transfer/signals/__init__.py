"""What behaviour says beside the Siamese scorer, and how much each signal weighs."""
