from taipy.gui import Gui

name = "you"
page = """
# Greeter
<|{name}|input|>
Hello, <|{name}|text|>!
"""

if __name__ == "__main__":
    Gui(page).run(title="Greeter")
