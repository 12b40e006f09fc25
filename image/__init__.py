"""The operator's image, built without a daemon and, where no registry can be reached, on a base made here."""
