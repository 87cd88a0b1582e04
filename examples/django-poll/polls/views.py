from django.contrib import messages
from django.db.models import F
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from .models import Choice, Question


def index(request):
    return render(request, "polls/index.html", {"questions": Question.objects.prefetch_related("choices")})


@require_POST
def vote(request, question_id):
    choice = get_object_or_404(Choice, pk=request.POST.get("choice"), question_id=question_id)
    Choice.objects.filter(pk=choice.pk).update(votes=F("votes") + 1)
    messages.success(request, f"One more for {choice.text}.")
    return redirect("index")


def results(request):
    questions = Question.objects.prefetch_related("choices")
    return JsonResponse({q.text: {c.text: c.votes for c in q.choices.all()} for q in questions})
