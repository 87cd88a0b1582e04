const state = document.getElementById("state");
const text = document.getElementById("text");
const heard = document.getElementById("heard");

const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
socket.onopen = () => { state.textContent = "connected"; };
socket.onclose = (event) => { state.textContent = `closed (${event.code})`; };
socket.onmessage = ({ data }) => {
  const item = document.createElement("li");
  item.textContent = data;
  heard.append(item);
};

document.getElementById("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (text.value) socket.send(text.value);
  text.value = "";
});
