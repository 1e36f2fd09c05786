"""What serving and Nuclio share: an event in, a callable with its arguments bound, a reply out."""
