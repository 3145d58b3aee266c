"""Those who are measured, one file each: how its two processes come together, and what they can be asked to do."""
