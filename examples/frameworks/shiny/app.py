from shiny import App, render, ui

app_ui = ui.page_fluid(ui.panel_title("Greeter"), ui.input_text("name", "Name", "you"), ui.output_text("greeting"))


def server(input, output, session):
    @render.text
    def greeting():
        return f"Hello, {input.name()}!"


app = App(app_ui, server)
