"""What can be seen in a picture and would name somebody: found, boxed and masked."""
