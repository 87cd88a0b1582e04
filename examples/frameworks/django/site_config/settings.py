SECRET_KEY = "for the example alone"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_config.urls"
WSGI_APPLICATION = "site_config.wsgi.application"
