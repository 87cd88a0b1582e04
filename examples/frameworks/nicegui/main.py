from nicegui import ui

name = ui.input("Name", value="you")
ui.label().bind_text_from(name, "value", lambda who: f"Hello, {who}!")

ui.run(title="Greeter")
