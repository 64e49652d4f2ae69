"""Training: fine-tuning on the source, the target's head, the Siamese scorer."""
