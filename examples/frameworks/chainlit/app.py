import chainlit as cl


@cl.on_message
async def greet(message: cl.Message):
    await cl.Message(content=f"Hello, {message.content}!").send()
