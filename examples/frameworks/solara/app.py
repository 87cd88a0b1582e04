import solara

name = solara.reactive("you")


@solara.component
def Page():
    solara.Title("Greeter")
    solara.InputText("Name", value=name)
    solara.Markdown(f"Hello, {name.value}!")
