"""What users need to test their own bots and drivers."""
