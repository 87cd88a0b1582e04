from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import streamlit as st

st.set_page_config(page_title="Cafeteria", layout="wide")

sales = pd.read_csv(Path(__file__).parent / "sales.csv", parse_dates=["day"])

st.title("Cafeteria sales")
dishes = st.multiselect("Dishes", sorted(sales["dish"].unique()), default=sorted(sales["dish"].unique()))
chosen = sales[sales["dish"].isin(dishes)]

left, middle, right = st.columns(3)
left.metric("Portions", f"{chosen['portions'].sum():,}")
middle.metric("Revenue", f"{(chosen['portions'] * chosen['price']).sum():,.0f}")
right.metric("Best seller", chosen.groupby("dish")["portions"].sum().idxmax() if len(chosen) else "none")

by_day = chosen.pivot_table(index="day", columns="dish", values="portions", aggfunc="sum").fillna(0)
st.subheader("Portions a day")
st.line_chart(by_day)

st.subheader("Share of each dish")
figure, axes = plt.subplots(figsize=(6, 2.6))
chosen.groupby("dish")["portions"].sum().sort_values().plot.barh(ax=axes, color="#c8401f")
axes.set_ylabel("")
axes.spines[["top", "right"]].set_visible(False)
st.pyplot(figure)

with st.expander("The figures"):
    st.dataframe(chosen, hide_index=True)
