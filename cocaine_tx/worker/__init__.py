"""What an app author imports."""
