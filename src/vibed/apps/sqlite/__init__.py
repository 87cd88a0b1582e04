"""The AppStore on SQLite (WAL), shared by the API's process and the controller's."""
