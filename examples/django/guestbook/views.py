from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from guestbook.models import Guest


@require_http_methods(["GET", "HEAD", "POST"])
def book(request: HttpRequest) -> HttpResponse:
    """Shows the newest guests; a POST signs the book."""
    if request.method == "POST":
        Guest.objects.create(name=request.POST["name"][:80])
        return redirect("/")
    return render(request, "book.html", {"guests": Guest.objects.order_by("-signed")[:20]})
