import panel as pn

pn.extension()
name = pn.widgets.TextInput(name="Name", value="you")
pn.Column("# Greeter", name, pn.bind(lambda who: f"Hello, {who}!", name)).servable(title="Greeter")
