import streamlit as st

st.title("Greeter")
name = st.text_input("Your name", "you")
st.write(f"Hello, {name}!")
