import connexion

app = connexion.FlaskApp(__name__)


@app.route("/")
def index():
    return "Hello from Connexion!"
