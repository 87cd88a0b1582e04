import mesop as me


@me.page(path="/", title="Greeter")
def page():
    me.text("Hello, you!")
