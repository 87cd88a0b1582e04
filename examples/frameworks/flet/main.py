import flet as ft


def main(page: ft.Page):
    page.title = "Greeter"
    page.add(ft.Text("Hello, you!"))


ft.run(main)
