"""Function specs to images: plan, Dockerfile, context, engine; and environments for runs without an image."""
