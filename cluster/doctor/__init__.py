"""`diffii doctor`: what a run needs of its machines, its storage and its model, looked at before it costs anything."""
