import gradio as gr


def greet(name):
    return f"Hello, {name}!"


demo = gr.Interface(greet, "text", "text", title="Greeter")
demo.launch()
