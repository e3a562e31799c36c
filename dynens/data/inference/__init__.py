"""What each column of a stranger's table is, decided on evidence."""
