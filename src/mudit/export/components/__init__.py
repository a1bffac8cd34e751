"""Files that are copied into exported folders, where diffusers imports them. They need no mudit."""
