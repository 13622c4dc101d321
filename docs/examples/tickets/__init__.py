"""Tickets: Django with its ORM and admin, and tasks of Celery.

sidelight outbox create sqlite:///tickets.db
export DJANGO_SETTINGS_MODULE=tickets.settings SECRET_KEY=$RANDOM$RANDOM
python -m django migrate --run-syncdb
python -m django createsuperuser
gunicorn --workers 2 'django.core.wsgi:get_wsgi_application()'
celery -A tickets.tasks worker

Then http://127.0.0.1:8000/buy/A1 sells a ticket, and http://127.0.0.1:8000/admin/ shows the events.
"""
